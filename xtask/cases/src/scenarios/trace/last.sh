kho-guest fill
arrived

# The lines of one clock come after those of the other, under a title, and each part is in the order of time.
kho trace | grep '^# clock ' >/tmp/clocks
printf '# clock counter: the top level\n# clock mono: instance net\n' | cmp - /tmp/clocks
kho trace | sed '/^# clock mono/,$d' | grep -v '^#' >/tmp/counted
kho trace --instance '' | cmp - /tmp/counted
sed 's/^.*\] ..... *\([0-9]*\): .*/\1/' /tmp/counted | grep -v LOST | sort -n -c
refused 'is of one clock, and there are several: clock counter: ' kho trace --since 1
kho trace --since -1 --instance net >/tmp/second
[ -s /tmp/second ]
kho trace --json | grep -c '"clock": "mono"'
kho trace --output /tmp/all.dat 2>&1 | grep 'of different clocks, and trace-cmd sorts by them all the same'

# The first kernel's trace is still there; no kernel here has the format of its probe.
kho trace --hop 1 | grep -q 'opened: (do_sys_openat2+0x0/0x.*) dfd=-100 name="/proc/version"'
kho trace --hop 1 | grep -q 'open_returned: (.*+0x.*/0x.* <- do_sys_openat2) arg1=0x'
kho trace --hop 1 --instance nothing >/tmp/nothing
[ ! -s /tmp/nothing ]
kho trace --follow-hops | grep -q '^# hop 1: 6.1'
kho log --hop 1 | head -1 | grep 'Linux version 6.1'
kho validate --in
