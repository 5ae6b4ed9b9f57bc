# Allocations of the module fail: the first, then the second, and so on, until all succeed.
rmmod kho_ring 2>/dev/null || true
rmmod kho 2>/dev/null || true

# arrival: loading the module fails until its allocations succeed; then everything that arrived is there.
number=0
until insmod $modules/kho_faults.ko fail_after=$number 2>/tmp/why; do
	grep -q -i 'memory' /tmp/why || { cat /tmp/why; exit 1; }
	number=$((number + 1))
	[ $number -lt 400 ]
done
echo "the module loads with $number allocations"
[ "$KHO_HOP" = 0 ] || [ $number -gt 3 ]
f=/sys/module/kho/parameters/fail_after
echo -1 >$f

# claim and register
number=0
while :; do
	echo $number >$f
	if insmod $modules/kho_ring.ko; then break; fi
	echo -1 >$f
	number=$((number + 1))
	[ $number -lt 100 ]
done
echo "the ring loads with $number allocations"
echo -1 >$f
if [ "$KHO_HOP" = 0 ]; then
	ring_add 5
else
	ring_is 0 5
fi
insmod $modules/kho_test.ko pages=20

# serialize, seal, publish
number=0
while :; do
	echo $number >$f
	if echo 1 2>/dev/null >$sys/active; then break; fi
	thawed
	number=$((number + 1))
	[ $number -lt 1000 ]
done
echo "activation makes $number allocations"
[ $number -gt 10 ]
# Reading, and leaving the active phase, need no allocation that may fail.
echo 0 >$f
[ "$(cat $sys/active)" = 1 ]
[ "$(wc -c <$sys/dt)" -gt 100 ]
echo 0 >$sys/active
thawed
echo -1 >$f
ring_is 0 5
