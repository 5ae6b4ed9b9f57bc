kho activate
kho validate --out
kho dump --file /sys/kernel/kho/dt | tee /tmp/drivers
drivers
cp /sys/kernel/kho/dt /tmp/dt
kho diff /tmp/dt /sys/kernel/kho/dt
kho abort
# A second freeze differs from the first only by its generation.
kho activate
kho validate --out
status=0
kho diff /tmp/dt /sys/kernel/kho/dt || status=$?
[ $status = 70 ]
