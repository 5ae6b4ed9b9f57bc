grows plug
grows grow
keep_tree_and_blob 16
mkdir -p /srv/vm
mount -t khofs none /srv/vm -o name=vm
# More than half of the memory that the machine booted with. What was added later is free, and cannot be kept.
kho-guest bytes $((600 << 20)) --seed 5 >/srv/vm/large
kho-guest hash --same large </srv/vm/large
load
kho-guest loaded
