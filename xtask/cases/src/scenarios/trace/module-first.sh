mine=$T/instances/mine
mkdir $mine
# The lines of that instance, joined.
live() {
	grep -v '^#' $mine/trace | sed 's/.*tracing_mark_write: //' | tr '\n' ' '
}
kho keep --trace --trace-hops 3
echo record >/sys/kernel/kho_ring/add
echo 1 >$T/events/sched/sched_switch/enable
echo one >$mine/trace_marker
# The buffer of a snapshot is taken too, and stays unchanged.
put_aside first

kho load "$KHO_NEXT_KERNEL" --initrd "$KHO_NEXT_INITRD" --append "$KHO_NEXT_CMDLINE"
[ "$(cat /sys/kernel/kho/active)" = 1 ]
echo two >$mine/trace_marker
[ "$(cat $T/tracing_on)" = 1 ]
[ "$(live)" = 'one two ' ]
kho abort
[ "$(cat /sys/kernel/kho/active)" = 0 ]
echo three >$mine/trace_marker

kho load "$KHO_NEXT_KERNEL" --initrd "$KHO_NEXT_INITRD" --append "$KHO_NEXT_CMDLINE"
kho unload
echo four >$mine/trace_marker
[ "$(live)" = 'one two three four ' ]
cat $mine/per_cpu/cpu*/stats >/tmp/stats
fails grep '^\(overrun\|commit overrun\|dropped events\|read events\): [1-9]' /tmp/stats

load
echo 'too late' >$mine/trace_marker
[ "$(cat $T/tracing_on)" = 1 ]
