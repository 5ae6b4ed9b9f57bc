# 400 MiB in a guest with 2 GiB, for a kernel with KHO of its own.
mkdir /srv/large
head -c $((400 << 20)) /dev/zero >/srv/large/file
kho keep /srv/large
echo sesame | kho keep --name token -
# By default that kernel sets aside twice of it, and once more on each node: that is known before the jump.
refused 'needs .* of free memory' \
	kho load "$KHO_NEXT_KERNEL" --initrd "$KHO_NEXT_INITRD" --append "$KHO_NEXT_CMDLINE kho=on kho_scratch=200%"
kho plan "$KHO_NEXT_KERNEL" --initrd "$KHO_NEXT_INITRD" --append "$KHO_NEXT_CMDLINE kho=on" >/tmp/plan 2>&1
cat /tmp/plan
grep 'has KHO of its own and the command line switches it on: it sets scratch areas aside (kho_scratch=' /tmp/plan
grep 'scratch of its own KHO' /tmp/plan
kho doctor | grep 'native-kho.*this kernel has no KHO of its own'
KHO_NEXT_CMDLINE="$KHO_NEXT_CMDLINE kho=on"
load
kho-guest loaded
