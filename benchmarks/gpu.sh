#!/bin/sh
# What a GPU must show, in less than eight minutes: the tests of a real device, and the table of "On a GPU".
#     sh benchmarks/gpu.sh [folder for the results]
# The parts go by themselves, so that one that fails or takes too long does not hide the others.
set -u
cd "$(dirname "$0")/.."
out="${1:-.}"
failed=0
part() {  # seconds, name, command
    seconds="$1"; name="$2"; shift 2
    timeout "$seconds" "$@" > "$out/$name.txt" 2>&1
    code=$?
    echo "== $name: exit $code"
    tail -n 15 "$out/$name.txt"
    [ $code -eq 0 ] || failed=1
}
part 20  device python -c "import torch; assert torch.cuda.is_available(), 'no GPU'; print(torch.cuda.get_device_name())"
[ $failed -eq 0 ] || exit 1
part 120 tests  python -m pytest -m gpu tests/tarot/test_device.py -q
part 90  motion python benchmarks/scale.py stages --n 300000 --m 3200 --d 4096 --device cuda
part 180 otm    python benchmarks/scale.py otm --m 10000 --n 200000 --judge entropic --device cuda
part 60  small  python benchmarks/scale.py otm --m 1000 --device cuda
exit $failed
