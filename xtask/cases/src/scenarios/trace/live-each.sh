kho trace >/tmp/trace
wc -l /tmp/trace
tail -n 3 /tmp/trace
[ "$(wc -l </tmp/trace)" -gt 100 ]
tail -n 1 /tmp/trace | grep 'tracing_mark_write: armed, and not yet captured'
kho restore --boot
cmp /tmp/trace /run/kho/trace/hop-1.trace
kho log | cmp - /run/kho/trace/hop-1.log
# The newest lines, as many as the instance has room for.
sed -n 's/^tracing_mark_write: //p' $T/instances/kho-1/trace >/tmp/instance
[ -s /tmp/instance ]
tail -n "$(wc -l </tmp/instance)" /tmp/trace | cmp - /tmp/instance

# The lines are in the order of time.
sed 's/^.* \([0-9]*\.[0-9]*\): .*/\1/' /tmp/trace | sort -n -c
kho status --json >/tmp/status
grep -A 4 '"traces"' /tmp/status
