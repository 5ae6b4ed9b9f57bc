# Armed by keep.d, traced throughout, captured at the end.
mkdir -p /etc/kho/keep.d
echo 't - size=64K hops=1' >/etc/kho/keep.d/trace.conf
kho load --arm "$KHO_NEXT_KERNEL" --initrd "$KHO_NEXT_INITRD" --append "$KHO_NEXT_CMDLINE"
kho keep --list | grep 'the trace of one kernel, at most 64.0 KiB'

mkdir $T/instances/old
echo 'the oldest line of all' >$T/instances/old/trace_marker
echo 1 >$T/events/sched/enable
echo 'vfs_read vfs_write' >$T/set_ftrace_filter
echo function >$T/current_tracer
while :; do dd if=/dev/zero of=/dev/null bs=512 count=500 2>/dev/null; done &
busy=$!
# Another reader consumes meanwhile.
cat $T/trace_pipe >/tmp/pipe &
pipe=$!
kho trace --live >/dev/null
until [ -s /tmp/pipe ]; do sleep 1; done
kill $pipe
# The lines behind the pipe are not consumed. Tracing is off meanwhile: the buffer of this CPU could wrap before it is
# read.
echo 'behind the pipe' >$T/trace_marker
echo 0 >$T/tracing_on
kho trace --live --instance '' >/tmp/live
echo 1 >$T/tracing_on
grep 'tracing_mark_write: behind the pipe' /tmp/live
# Now the buffer again holds more than the limit.
sleep 3
kho trace --live | tail -n 3
# The cost: never more than the limit, and all of the limit if the buffer holds more.
kho plan "$KHO_NEXT_KERNEL" --initrd "$KHO_NEXT_INITRD" --append "$KHO_NEXT_CMDLINE" --json >/tmp/plan
grep -A 8 '"traces"' /tmp/plan
cost=$(sed -n 's/.*"buffers": \([0-9]*\).*/\1/p' /tmp/plan)
[ "$cost" -le 65536 ]
[ "$cost" -gt 49152 ]
kill $busy
# Another tracer would begin with empty buffers.
echo 0 >/proc/sys/kernel/ftrace_enabled
echo 0 >$T/events/sched/enable

# If the trace cannot be taken, kho refuses and changes nothing.
umount $T
refused 'is not a tracefs' kho plan "$KHO_NEXT_KERNEL" --initrd "$KHO_NEXT_INITRD" --append "$KHO_NEXT_CMDLINE"
# A capture, with no administrator to answer, hands the rest over without the trace and reports that.
kho capture >/tmp/out 2>&1
cat /tmp/out
grep 'THE TRACE IS NOT HANDED OVER.* is not a tracefs' /tmp/out
[ "$(cat /sys/kernel/kexec_loaded)" = 1 ]
kho keep --list | grep 'the trace of one kernel'
mount -t tracefs tracefs $T
kho load --arm "$KHO_NEXT_KERNEL" --initrd "$KHO_NEXT_INITRD" --append "$KHO_NEXT_CMDLINE"

echo 'armed, and not yet captured' >$T/trace_marker
kho capture
[ "$(cat $T/tracing_on)" = 1 ]
grep -q 'the oldest line of all' $T/instances/old/trace
kho-guest loaded
