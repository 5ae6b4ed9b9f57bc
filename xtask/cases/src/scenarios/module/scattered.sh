if [ $KHO_HOP -gt 0 ]; then
	# The arrival program checked each page before the module released slack.
	arrived=$(dmesg | sed -n 's/.*kho: arrival: \([0-9]*\) ranges with .* pages are reserved .*/\1/p')
	echo "early ranges that arrived: $arrived"
	[ $arrived -ge 2 ]
	[ $arrived -le 100 ]
	kho-guest fill
	insmod $modules/kho_test.ko
	[ $(cat /sys/module/kho_test/parameters/verified) = 0 ]
	ring_is 0 $((2 * KHO_HOP))
	echo all >$sys/release || true
	[ $(fact unclaimed) = 0 ]
	rmmod kho_test
fi
mem_total | kho-guest report MemTotal
insmod $modules/kho_test.ko
ring_add 2
[ -z "$KHO_NEXT" ] || {
	load
	kho status
	dmesg | grep 'kho:'
	kho plan "$KHO_NEXT_KERNEL" --initrd "$KHO_NEXT_INITRD" --append "$KHO_NEXT_CMDLINE" --json >/tmp/plan
	# The number of early ranges has a limit, however scattered the memory is.
	entries=$(sed -n 's/.*"early_ranges": \([0-9]*\),/\1/p' /tmp/plan)
	echo "early ranges: $entries"
	[ $entries -le 100 ]
	kho-guest loaded
}
