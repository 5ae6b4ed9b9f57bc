# The kernel of stage 0 is not locked down; it hands over to a kernel that is.
K=/media/kernels/1/bzImage I=/media/kernels/1/initrd
if [ "$KHO_HOP" = 0 ]; then
	echo sesame | kho keep --name token -
	kho load "$KHO_NEXT_KERNEL" --initrd "$KHO_NEXT_INITRD" --append "$KHO_NEXT_CMDLINE lockdown=$level"
	kho-guest loaded
	exit
fi
kho-guest fill
grep -q "lockdown=$level" /proc/cmdline
# Arrived content can be used under lockdown too.
[ "$(kho get token)" = sesame ] || wrong 'token did not arrive'
holds kho status
echo '== without securityfs'
expect 12 'locked down|lockdown' -- kho load "$K" --initrd "$I"
mount -t securityfs securityfs /sys/kernel/security
grep -q "\[$level\]" /sys/kernel/security/lockdown
echo '== with securityfs'
expect 12 'the kernel is locked down' -- kho load "$K" --initrd "$I"
expect 12 'the kernel is locked down' -- kho plan "$K" --initrd "$I"
expect 12 'the kernel is locked down' -- kho reboot "$K" --initrd "$I"
expect 12 'the kernel is locked down' -- kho doctor
expect 53 'no kernel is loaded' -- kho exec
finish
