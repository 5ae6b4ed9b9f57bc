# Memory fails: the kernel's own, arrived memory, and memory in scratch. No later kernel uses it.
sys=/sys/kernel/kho
modules=/lib/modules/$KHO_RELEASE/updates

# fail_in START END COUNT STEP: makes COUNT pages fail, each STEP bytes after the last; skips pages that the kernel
# cannot offline.
fail_in() {
	local at=$1 left=$3
	while [ $left -gt 0 ]; do
		[ $at -lt $2 ]
		if sh -c "echo $at >/sys/devices/system/memory/soft_offline_page" 2>/dev/null && has $at $POISONED; then
			echo $at >>/tmp/bad
			left=$((left - 1))
		fi
		at=$((at + $4))
	done
}

# fail_reserved ADDRESS: makes an arrived page fail. The kernel cannot offline such a page, and reports that.
fail_reserved() {
	sh -c "echo $1 >/sys/devices/system/memory/hard_offline_page" || true
	has $1 $POISONED
	has $1 $RESERVED
	echo $1 >>/tmp/bad
}

mem_total() {
	awk '/^MemTotal/ { print $2 }' /proc/meminfo
}

# plan: sets the address and the length of the next kernel.
plan() {
	kho plan "$KHO_NEXT_KERNEL" --initrd "$KHO_NEXT_INITRD" --append "$KHO_NEXT_CMDLINE" --json | tr -d ' \n' >/tmp/plan
	set -- $(sed 's/.*"kernel":{"addr":"\(0x[0-9a-f]*\)","len":\([0-9]*\)}.*/\1 \2/' /tmp/plan)
	first=$(($1))
	len=$2
}

case $KHO_HOP in
0)
	fail_in $((512 << 20)) $((1024 << 20)) 150 8192
	kho doctor | grep '600 KiB of memory were lost to hardware errors'
	kho-guest bytes 3000001 --seed 2 | kho keep --name stays -
	kho-guest bytes 3000001 --seed 3 | kho keep --name other -
	kho-guest bytes 3000001 --seed 3 | kho-guest hash --same other
	kho keep --name bad - </tmp/bad
	insmod $modules/kho.ko
	insmod $modules/kho_test.ko pages=50 blocks=2
	load | tee /tmp/load
	grep '600 KiB of memory that failed left out' /tmp/load
	kho-guest loaded
	;;
1)
	kho get bad >/tmp/bad
	unusable /tmp/bad
	# More entries than the boot parameters have room for.
	[ "$(wc -l </tmp/unusable)" = 150 ]
	[ "$(ls /sys/firmware/memmap | wc -l)" -gt 300 ]
	insmod $modules/kho.ko

	# A page that arrived for a driver.
	kho dump --file $sys/in/dt --json >/tmp/dt
	block=$(tr -d ' \n' </tmp/dt | sed 's/.*"name":"blocks"[^]]*"mem":\[{"addr":\([0-9]*\).*/\1/')
	bad=$((block + 5 * 4096))
	fail_reserved $bad
	refused 'hardware error' kho activate
	dmesg | grep 'kho: the memory of /test at .* failed'
	insmod $modules/kho_test.ko pages=2
	dmesg | grep 'kho: .* its memory failed since: no driver gets it'
	[ "$(cat /sys/module/kho_test/parameters/verified)" = 1 ]
	[ "$(sed -n 's|^/test/blocks ||p' $sys/release)" = $((2 << 20)) ]
	rmmod kho_test
	total=$(mem_total)
	echo /test >$sys/release
	dmesg | grep 'kho: 1 pages whose memory failed stay reserved'
	[ "$(mem_total)" = $((total + 511 * 4)) ]
	has $bad $POISONED
	has $bad $RESERVED
	for beside in $((bad - 4096)) $((bad + 4096)); do
		fails has $beside $RESERVED
	done
	kho-guest fill
	kho get other | kho-guest hash --same other

	# A page of a blob that stays in place.
	fail_reserved $(($(address stays) + 4096))
	got=0
	load >/tmp/load 2>&1 || got=$?
	cat /tmp/load
	[ $got = 48 ]
	grep 'stays: memory failed at .* (a hardware error)' /tmp/load
	kho keep --remove stays

	# A page at the next kernel's place.
	plan
	fail_in $first $((first + len)) 1 65536
	plan
	[ $first -gt $(tail -n 1 /tmp/bad) ] || [ $((first + len)) -le $(tail -n 1 /tmp/bad) ]
	kho keep --remove bad
	kho keep --name bad - </tmp/bad
	load

	# A page that fails after the load.
	fail_in $((800 << 20)) $((1000 << 20)) 1 4096
	refused 'memory failed since the load' kho exec
	kho keep --remove bad
	kho keep --name bad - </tmp/bad
	load
	kho-guest loaded
	;;
*)
	kho get bad >/tmp/bad
	[ "$(wc -l </tmp/bad)" = 154 ]
	unusable /tmp/bad
	insmod $modules/kho.ko
	kho-guest fill
	kho get other | kho-guest hash --same other
	;;
esac
