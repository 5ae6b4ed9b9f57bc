# One kernel: entering and leaving the active phase, and all possible failures.
thawed
ring_add 3

# The use of the active phase and of abort, as the proposal for the kernel describes it.
for round in 1 2; do
	echo 1 >$sys/active
	frozen
	fails sh -c "echo 1 >$sys/active"
	fails sh -c "echo record >$ring/add"
	fails rmmod kho_ring
	fails rmmod kho
	kho validate --out
	kho status | grep -q 'in place  /ring'
	# A producer that comes now takes part from the next phase on, and may go at once.
	insmod $modules/kho_test.ko pages=2
	dmesg | grep -q 'kho: producer test registered in the active phase'
	[ "$(cat /sys/module/kho_test/parameters/calls)" = '' ]
	kho dump --file $sys/dt >/tmp/dt
	fails grep 'test' /tmp/dt
	rmmod kho_test
	frozen
	echo 0 >$sys/active
	thawed
	ring_add 1
done
echo 0 >$sys/active
fails sh -c "echo 2 >$sys/active"
ring_is 0 5

# The same by the command.
kho activate
frozen
fails kho activate
kho abort
thawed

# A producer in the middle fails: the write returns its errno, the producers before it are undone in reverse order, and
# no tree shows.
insmod $modules/kho_test.ko pages=50 last=1
p=/sys/module/kho_test/parameters
# called NAMES: these producers were called since the last check, in this order; an abort has a minus sign.
called() {
	found=$(echo $(cat $p/calls))
	printf ' ' >$p/calls
	[ "$found" = "$1" ] || {
		echo "called: $found"
		return 1
	}
}
# busybox and the C library have different words for each errno.
for error in '5 nput/output error\|I/O error' '12 annot allocate memory\|ut of memory' '110 timed out'; do
	echo ${error%% *} >$p/fail
	refused "${error#* }" sh -c "echo 1 >$sys/active"
	thawed
	called 'test test-fail -test'
	ring_add 1
	[ "$(fact failed-producer)" = test-fail ]
	refused "the producer test-fail failed: .*\(${error#* }\)" kho activate
	thawed
	called 'test test-fail -test'
done
echo 0 >$p/fail
ring_is 0 8
# In order of priority, not of registration; aborts in the reverse order.
echo 1 >$sys/active
called 'test test-fail test-last'
[ -z "$(fact failed-producer)" ]
echo 0 >$sys/active
called '-test-last -test-fail -test'

# Wrong calls of a driver, each with its own refusal.
text=$(sed -n 's/^ *\([0-9a-f]*\)-.* : Kernel code$/\1/p' /proc/iomem)
echo $((0xfee00000)) >$p/bad
# wrong MISUSE WORDS: the write to active fails with this error.
wrong() {
	printf $1 >$p/misuse
	refused "$2" sh -c "echo 1 >$sys/active"
	thawed
}
wrong twice 'in use'
wrong again 'in use'
wrong unaligned 'nvalid argument'
wrong node 'nvalid argument'
for ignored in ignore ignore-value ignore-area; do
	wrong $ignored 'nvalid argument'
done
wrong notram 'No such device or address'
# The kernel's own text, and the array of struct page.
echo $((0x$text)) >$p/bad
wrong reserved 'busy'
# In scratch, after the module knows it: a page of the driver's own.
printf none >$p/misuse
echo '0x4000000 0x8000000' >$sys/scratch
[ "$(cat $sys/scratch)" = '0x4000000 0x8000000' ]
echo $((0x5000000)) >$p/bad
wrong scratch 'requested address'
printf none >$p/misuse

# Two writers and a reader at once.
writer() {
	for _ in $(seq 100); do echo $1 >$sys/active 2>/dev/null || true; done
}
writer 1 &
one=$!
writer 0 &
two=$!
# A concurrent reader of the tree sees all of one tree or none.
seen=0
tries=0
while [ $tries -lt 100 ]; do
	tries=$((tries + 1))
	cat $sys/dt >/tmp/dt 2>/dev/null || continue
	[ -s /tmp/dt ] || continue
	kho validate /tmp/dt
	seen=$((seen + 1))
done
echo "$seen trees were seen in $tries looks"
wait $one $two
echo 0 >$sys/active
thawed
ring_is 0 8
kho activate
frozen
kho abort
rmmod kho_test

# Unloading while other processes write: it is refused, or the module goes and leaves no active phase behind.
rmmod kho_ring
for round in 1 2 3 4 5 6 7 8; do
	writer 1 2>/dev/null &
	one=$!
	writer 0 2>/dev/null &
	two=$!
	tries=0
	while [ -d $sys ] && [ $tries -lt 200 ]; do
		rmmod kho 2>/dev/null || true
		tries=$((tries + 1))
	done
	wait $one $two
	[ ! -d $sys ] || { echo 0 >$sys/active && rmmod kho; }
	insmod $modules/kho.ko
	thawed
done
insmod $modules/kho_ring.ko
ring_add 8

# Only root has access.
echo nobody:x:65534:65534::/tmp:/bin/sh >>/etc/passwd
for file in $sys/* $ring/*; do
	[ -d $file ] || fails su nobody -c "PATH=$PATH; cat $file"
done
fails su nobody -c "PATH=$PATH; echo 1 >$sys/active"
refused 'root' su nobody -c "PATH=$PATH; kho activate"
thawed

# Unloaded and loaded again, with nothing left behind.
before=$(grep MemFree /proc/meminfo)
rmmod kho_ring
rmmod kho
[ ! -e $sys ]
refused 'kho.ko is not loaded' kho activate
insmod $modules/kho.ko
insmod $modules/kho_ring.ko
[ "$(cat $ring/origin)" = new ]
echo "$before, then $(grep MemFree /proc/meminfo)"
