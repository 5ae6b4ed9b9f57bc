# lines HOP: the lines that kernel HOP wrote to its instance, joined.
lines() {
	kho trace --hop "$1" --instance mine | sed 's/.*tracing_mark_write: //' | tr '\n' ' '
}
kho-guest fill
[ "$(cat /sys/kernel/kho_ring/counter)" = 1 ]
case $KHO_HOP in
1)
	[ "$(lines 1)" = 'one two three four ' ]
	kho trace --instance aside:snapshot | grep 'tracing_mark_write: first$'
	;;
2)
	# The first kernel's trace is at its old place.
	[ "$(lines 1)" = 'one two three four ' ]
	[ "$(lines 2)" = 'five ' ]
	kho trace --instance aside:snapshot | grep 'tracing_mark_write: hop 1$'
	kho trace --follow-hops | grep '^# hop' | cut -d ' ' -f 3 | tr -d ':' | tr '\n' ' ' | grep -q '^1 2 $'
	kho release all
	refused 'hop 2' kho trace
	;;
3)
	[ "$(lines 3)" = 'five ' ]
	kho trace --instance aside:snapshot | grep 'tracing_mark_write: hop 2$'
	refused 'no trace of hop 2 arrived' kho trace --hop 2
	exit
	;;
esac
mkdir $T/instances/mine
echo five >$T/instances/mine/trace_marker
put_aside "hop $KHO_HOP"
kho plan "$KHO_NEXT_KERNEL" --initrd "$KHO_NEXT_INITRD" --append "$KHO_NEXT_CMDLINE" >/tmp/plan
cat /tmp/plan
grep "(hop $((KHO_HOP + 1))).*copied" /tmp/plan
case $KHO_HOP in
1) grep 'trace of 6.1.*(hop 1).*stays in place' /tmp/plan ;;
2)
	# A released trace is not handed over, and kho reports that.
	fails grep 'stays in place' /tmp/plan
	grep 'note: the trace of 6.1.* (hop 1) is not carried on' /tmp/plan
	load 2>/tmp/said
	grep 'warning: the trace of 6.12.* (hop 2) is not carried on' /tmp/said
	exit
	;;
esac
load
