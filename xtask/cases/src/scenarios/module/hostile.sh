# The host forges arrived data in memory before the module reads it, many times. Then the host restores the data, and
# all of it is accepted.

# try FORGERY FACT WANT: with the forgery the module reports WANT, and gives no memory to any driver.
try() {
	kho-guest report forgery $1
	kho-guest mark forge
	insmod $modules/kho.ko
	[ "$(fact $2)" = "$3" ] || {
		echo "$1:"
		cat $sys/status
		return 1
	}
	[ ! -e $sys/in/dt ]
	insmod $modules/kho_ring.ko
	[ "$(cat $ring/origin)" = new ]
	rmmod kho_ring
	rmmod kho
	kho-guest mark heal
	[ "$(mem_total)" = $total ]
}

# First address of each line of /proc/iomem with this name.
place() {
	sed -n "s/^ *\([0-9a-f]*\)-.* : $1\$/\1/p" /proc/iomem
}

# outside PLACE WANT: the expected refusal of a tree that names PLACE. Address randomization may put a kernel's text
# into the scratch region, and the module refuses a mem cache that overlaps scratch before it checks the ranges.
outside() {
	kho status --json | tr -d ' \n' | sed -n 's/.*"scratch":{"addr":"\(0x[0-9a-f]*\)","len":\([0-9]*\).*/\1 \2/p' >/tmp/scratch
	read -r scratch length </tmp/scratch
	if [ $((0x$1)) -ge $((scratch)) ] && [ $((0x$1)) -lt $((scratch + length)) ]; then
		echo 'refused, the state tree is not valid'
	else
		echo "$2"
	fi
}

total=$(mem_total)
if [ "$KHO_HOP" -gt 0 ]; then
	od -A n -t u8 -j 592 -N 8 /sys/kernel/boot_params/data | tr -d ' ' | kho-guest report head
	place 'Kernel code' | kho-guest report text
	place Reserved | grep -v '^000' | head -n 1 | kho-guest report firmware
	memmap=$(kho-guest early-allocation)
	echo "$memmap" | kho-guest report memmap
	kho status --json | tr -d ' \n' | sed -n 's/.*"scratch":{"addr":"\(0x[0-9a-f]*\)".*/\1/p' | kho-guest report scratch
	printf %x "$(kho dump --json | tr -d ' \n' | sed -n 's/.*"label":"kept","mem":\[{"addr":\([0-9]*\).*/\1/p')" |
		kho-guest report blob

	# The module believes none of these and touches nothing.
	text=$(place 'Kernel code')
	unasked='refused, early boot was not asked to reserve all of the mem cache'
	unreserved='refused, a range is not RAM that early boot reserved for it'
	try cache-text arrival "$(outside "$text" "$unasked")"
	# Early boot takes this memory from the top, so it is outside scratch even if the text is not.
	try cache-memmap arrival "$(outside "${memmap#0x}" "$unasked")"
	try cache-firmware arrival "$unasked"
	try reserve-text arrival "$(outside "$text" "$unreserved")"
	try reserve-firmware arrival "$unreserved"
	# The module believes the loader's tree, but not the drivers'. A module that is loaded again takes only what the
	# first one marked, so each kernel begins with another forgery.
	set -- text memmap firmware scratch chain blob own twice empty unaligned wraps unsealed
	shift $((KHO_HOP * 4 - 4))
	for forgery in "$@" text memmap firmware scratch chain blob own twice empty unaligned wraps unsealed; do
		case $forgery in
		blob) want="a range is a blob's too" ;;
		own | twice | empty | unaligned | wraps | unsealed) want='it is damaged or contradicts itself' ;;
		*) want='a range is not in the mem cache' ;;
		esac
		try $forgery kernel-part "$want"
	done
	kho-guest fill
fi
insmod $modules/kho.ko
insmod $modules/kho_ring.ko
if [ "$KHO_HOP" -gt 0 ]; then
	ring_is 0 $((3 * KHO_HOP))
	[ "$(kho get kept | head -c 4)" = kept ]
	insmod $modules/kho_test.ko pages=20
	[ "$(cat /sys/module/kho_test/parameters/verified)" = 0 ]
else
	{ echo kept && kho-guest bytes 20000; } | kho keep --name kept -
	insmod $modules/kho_test.ko pages=20
fi
ring_add 3
