kho-guest fill
arrived
refused 'no trace of hop 7 arrived' kho trace --hop 7
[ "$(kho trace --cpu 0 | grep -vc '\[000\]')" = 0 ]
[ "$(kho trace --json | grep -c '"event": "opened"')" -gt 2 ]
echo 8 >$T/buffer_size_kb
# Two clocks that cannot be compared; one of them does not count time.
record counter mono
echo 1 >$T/tracing_on
for n in $(seq 200); do echo "marker $n, which takes its room in a buffer that is too small" >$T/trace_marker; done
echo 0 >$T/tracing_on
grep '^overrun: [1-9]' $T/per_cpu/cpu*/stats
hand_over
