# untrusted COMMAND…: COMMAND must report that the trace cannot be trusted in full, and show the rest.
untrusted() {
	got=0
	"$@" >/tmp/out 2>/tmp/err || got=$?
	cat /tmp/err
	[ $got = 63 ]
}

# hand_over_damaged DAMAGE
hand_over_damaged() {
	kho keep --no-trace
	kho-guest bytes 200000 --seed 6 >/tmp/content
	kho keep --name content - </tmp/content
	kho plan "$KHO_NEXT_KERNEL" --initrd "$KHO_NEXT_INITRD" --append "$KHO_NEXT_CMDLINE" --forget-arrived --json >/tmp/plan
	kho-guest load-damaged "$1" "$KHO_NEXT_KERNEL" --initrd "$KHO_NEXT_INITRD" --append "$KHO_NEXT_CMDLINE" \
		--content /tmp/content </tmp/plan
	kho-guest loaded --bare
}

case $KHO_HOP in
0)
	kho keep --trace
	record local global
	load
	;;
1)
	kho trace >/tmp/whole
	# The CPU with the most lines.
	cpu=$(sed -n 's/^ .*\[\([0-9]*\)\] .*/\1/p' /tmp/whole | sort | uniq -c | sort -n | tail -n 1 | awk '{ print $2 + 0 }')
	# The first node of that CPU belongs to the top level.
	kho dump --json | tr -d ' \n' | sed 's/"name"/\n&/g' | grep "^\"name\":\"cpu-$cpu\"" | head -n 1 \
		| sed 's/.*"mem":\[{"addr":\([0-9]*\).*/\1/' >/tmp/address
	kho-guest report traced </tmp/address
	kho-guest mark flip
	untrusted kho trace
	grep "trace of hop 1, CPU $cpu: .*hash" /tmp/err
	grep -v "^ .*\[00$cpu\]" /tmp/whole | cmp - /tmp/out
	[ -s /tmp/out ]
	kho restore --boot 2>/tmp/boot
	cat /tmp/boot
	grep "trace of hop 1, CPU $cpu: .*hash" /tmp/boot
	cmp /tmp/out /run/kho/trace/hop-1.trace
	hand_over_damaged trace-page
	;;
2)
	untrusted kho trace
	grep 'CPU 0, page 1: 0x1234 committed bytes in a page with room for 0xff0' /tmp/err
	grep 'the last that can be trusted' /tmp/out
	fails grep 'of a page that cannot' /tmp/out
	hand_over_damaged trace-cut
	;;
3)
	kho-guest fill
	got=0
	kho trace >/tmp/out 2>/tmp/err || got=$?
	cat /tmp/err
	[ $got = 61 ]
	grep '/ftrace/hop-1/array-0/cpu-0' /tmp/err
	[ ! -s /tmp/out ]
	kho-guest ranges --at-least 1
	;;
esac
