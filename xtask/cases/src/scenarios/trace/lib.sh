# Functions for the tests of traces.
T=/sys/kernel/tracing

trace_cmd() {
	"$KHO_FILES/ld-linux-x86-64.so.2" --library-path "$KHO_FILES" "$KHO_FILES/trace-cmd" "$@"
}

# report FILE: trace-cmd's output for a file, without two lines: the first, which counts CPUs, and the line with the
# number of events that were overwritten before the oldest, which the kernel tells only to a reader that consumes pages.
# After that line trace-cmd changes its indentation, so leading blanks do not count.
report() {
	trace_cmd report "$1" | tail -n +2 | grep -v 'EVENTS DROPPED' | sed 's/^ *//'
}

# Events that the kernel does not print by their formats.
special() {
	echo 1 >$T/events/syscalls/sys_enter_openat/enable
	echo 1 >$T/events/syscalls/sys_exit_openat/enable
	echo 'e:probed syscalls.sys_enter_openat dfd=$dfd:s32' >>$T/dynamic_events
	echo 1 >$T/events/eprobes/probed/enable
	printf '\052\000\000\000abcd' >$T/trace_marker_raw
	echo 1 >$T/options/func-no-repeats
	dd if=/dev/zero of=/dev/null bs=1 count=5 2>/dev/null
}

# record CLOCK CLOCK: events of all kinds on several CPUs, an instance with events and another clock, and an empty
# instance; then all tracing stops.
record() {
	echo $1 >$T/trace_clock
	echo 1 >$T/events/sched/sched_switch/enable
	echo 'p:opened do_sys_openat2 dfd=%di:s32 name=+0(%si):ustring' >>$T/kprobe_events
	echo 'r:open_returned do_sys_openat2 $retval' >>$T/kprobe_events
	echo 1 >$T/events/kprobes/enable
	echo 'vfs_open vfs_write' >$T/set_ftrace_filter
	echo function >$T/current_tracer
	[ "$KHO_HOP" -gt 0 ] || special
	mkdir $T/instances/net $T/instances/nothing
	echo $2 >$T/instances/net/trace_clock
	echo 1 >$T/instances/net/events/sched/sched_wakeup/enable
	for line in 1 2 3; do
		echo "marker line $line of hop $KHO_HOP" >$T/trace_marker
		cat /proc/version >/dev/null &
		cat /proc/uptime >/dev/null
		wait
	done
	echo 0 >$T/instances/net/tracing_on
	echo 0 >$T/tracing_on
}

# put_aside TEXT: an instance with a snapshot that has this line, and an empty live buffer.
put_aside() {
	mkdir $T/instances/aside
	echo "$1" >$T/instances/aside/trace_marker
	echo 1 >$T/instances/aside/snapshot
	grep "tracing_mark_write: $1\$" $T/instances/aside/snapshot
}

# tell KIND: prints lines for the host, which compares the lines of one kernel with those of the next.
tell() {
	sed "s/^/$1 | /"
}

load() {
	kho load "$KHO_NEXT_KERNEL" --initrd "$KHO_NEXT_INITRD" --append "$KHO_NEXT_CMDLINE"
	kho-guest loaded
}

# Takes the trace along, shows that the live buffers still hold it unchanged, and prints it for the host: as the kernel
# itself shows it, and as trace-cmd does, which consumes it.
hand_over() {
	grep -v '^#' $T/trace >/tmp/trace
	grep -v '^#' $T/instances/net/trace >/tmp/net
	[ -s /tmp/trace ]
	[ -s /tmp/net ]
	cat $T/per_cpu/cpu*/stats >/tmp/stats
	load
	grep -v '^#' $T/trace | cmp - /tmp/trace
	grep -v '^#' $T/instances/net/trace | cmp - /tmp/net
	# Only the clocks go on.
	cat $T/per_cpu/cpu*/stats | grep -v '^now ts' >/tmp/stats.after
	grep -v '^now ts' /tmp/stats | cmp - /tmp/stats.after
	{
		cat /tmp/trace
		sed 's/^/net: /' /tmp/net
	} | tell 'before'
	dmesg | head -n 20 | tell 'before log'
	trace_cmd extract -a -o /tmp/old.dat >/dev/null
	report /tmp/old.dat | tell 'before trace-cmd'
}

# Prints the arrived trace for the host.
arrived() {
	{
		kho trace --instance ''
		kho trace --instance net
	} | tell 'after'
	kho log | head -n 20 | tell 'after log'
	kho trace --output /tmp/arrived.dat
	report /tmp/arrived.dat | tell 'after trace-cmd'
}
