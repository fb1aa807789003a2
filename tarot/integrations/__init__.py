"""What other libraries' trainings leave for features; each module imports the library that it is called after."""
