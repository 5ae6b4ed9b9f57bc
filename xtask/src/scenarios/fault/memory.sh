# Memory that fails, in this kernel's own memory, in what arrived, and in scratch: no kernel after this one uses it.
sys=/sys/kernel/kho
modules=/lib/modules/$KHO_RELEASE/updates
POISONED=19
RESERVED=32

# has ADDRESS BIT: whether /proc/kpageflags has this bit for the page.
has() {
	flags=$(dd if=/proc/kpageflags bs=8 skip=$(($1 / 4096)) count=1 2>/dev/null | od -An -t x8 | tr -d ' ')
	[ $((0x$flags >> $2 & 1)) = 1 ]
}

# fail_in START END COUNT STEP: so many pages fail, each STEP bytes behind the last one; those that cannot be had are left out.
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

# fail_reserved ADDRESS: a page that arrived fails. The kernel cannot do anything about it, and says so.
fail_reserved() {
	sh -c "echo $1 >/sys/devices/system/memory/hard_offline_page" || true
	has $1 $POISONED
	has $1 $RESERVED
	echo $1 >>/tmp/bad
}

# within FILE ADDRESS: whether one of the ranges, "START LAST" in hexadecimal, has the address in it.
within() {
	while read -r start last; do
		[ $2 -lt $((0x$start)) ] || [ $2 -gt $((0x$last)) ] || return 0
	done <$1
	echo "$2 is in none of $(wc -l <$1) ranges"
	return 1
}

# What failed in the time of an earlier kernel is unusable in this one: by the map that it got, by what it made of it, and page
# by page.
unused() {
	for entry in /sys/firmware/memmap/*; do
		[ "$(cat $entry/type)" != 'Unusable memory' ] || echo "$(cat $entry/start) $(cat $entry/end)"
	done | sed 's/0x//g' >/tmp/memmap
	sed -n 's/^\([0-9a-f]*\)-\([0-9a-f]*\) : Unusable memory$/\1 \2/p' /proc/iomem >/tmp/iomem
	while read -r at; do
		within /tmp/memmap $at
		within /tmp/iomem $at
		has $at $RESERVED
	done </tmp/bad
	echo "$(wc -l </tmp/bad) pages are unusable, in $(wc -l </tmp/memmap) ranges, $(ls /sys/firmware/memmap | wc -l) entries"
}

mem_total() {
	awk '/^MemTotal/ { print $2 }' /proc/meminfo
}

# plan: where the next kernel would go, decimal.
plan() {
	kho plan "$KHO_NEXT_KERNEL" --initrd "$KHO_NEXT_INITRD" --append "$KHO_NEXT_CMDLINE" --json >/tmp/plan
	echo $(($(tr -d ' \n' </tmp/plan | sed 's/.*"image":{[^}]*"kernel":{"addr":"\(0x[0-9a-f]*\)".*/\1/')))
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
	unused
	# More than the boot parameters have room for.
	[ "$(wc -l </tmp/memmap)" = 150 ]
	[ "$(ls /sys/firmware/memmap | wc -l)" -gt 300 ]
	insmod $modules/kho.ko

	# Of what arrived for drivers.
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

	# Of a blob that stays where it is.
	fail_reserved $(($(address stays) + 4096))
	got=0
	load >/tmp/load 2>&1 || got=$?
	cat /tmp/load
	[ $got = 45 ]
	grep 'stays: of its memory at .* failed (a hardware error)' /tmp/load
	kho keep --remove stays

	# Where the next kernel would go.
	first=$(plan)
	fail_in $first $((first + (16 << 20))) 1 4096
	second=$(plan)
	[ $second -gt $(tail -n 1 /tmp/bad) ]
	kho keep --remove bad
	kho keep --name bad - </tmp/bad
	load
	kho-guest loaded
	;;
*)
	kho get bad >/tmp/bad
	[ "$(wc -l </tmp/bad)" = 153 ]
	unused
	insmod $modules/kho.ko
	kho-guest fill
	kho get other | kho-guest hash --same other
	;;
esac
