kho-guest fill
kho status
kho validate --in
kho validate --in --json | grep -q '"valid": true'
kho dump | tee /tmp/loaders
loaders
kho dump --raw >/tmp/tree
kho validate /tmp/tree
kho diff /tmp/tree --in
kho dump --file /sys/kernel/kho/in/dt | tee /tmp/drivers
drivers
kho validate /sys/kernel/kho/in/dt
