# Secure Boot locks every kernel of this chain down: content leaves each in the initrd of the next one, without a word
# about it on the command line.
K=${KHO_NEXT_KERNEL:-} I=${KHO_NEXT_INITRD:-} C=${KHO_NEXT_CMDLINE:-}
mount -t securityfs securityfs /sys/kernel/security
cat /sys/kernel/security/lockdown
grep -q '\[integrity\]' /sys/kernel/security/lockdown
dmesg | grep -i 'secure boot enabled'
if [ "$KHO_HOP" = 0 ]; then
	kho-guest bytes 5000000 --seed 1 >/tmp/blob
	kho-guest hash --same blob </tmp/blob
	kho keep --name blob - </tmp/blob
else
	kho status
	kho get blob | kho-guest hash --same blob
	[ "$(kho get later)" = "of hop $((KHO_HOP - 1))" ]
	kho keep --remove later
fi
code=0
kho doctor >/tmp/doctor || code=$?
[ "$code" = 12 ]
grep 'lockdown' /tmp/doctor
[ -n "$K" ] || exit 0
mkdir /tmp/hook
kho initrd /tmp/hook
(cd /tmp/hook && find . | cpio -o -H newc) >/tmp/hook.img 2>/dev/null
# doctor knows that the initrd is left, where the installed initrd has the hook.
grep 'carriers .*the initrd, if' /tmp/doctor
mkdir -p /boot
cp "$I" /boot/initrd.img-$KHO_RELEASE
: >/boot/vmlinuz-$KHO_RELEASE
code=0
kho doctor >/tmp/doctor || code=$?
[ "$code" = 12 ]
tr -s ' \n' ' ' </tmp/doctor | grep 'has no /.kho/carry'
cp /tmp/hook.img /boot/initrd.img-$KHO_RELEASE
kho doctor | tee /tmp/doctor
grep '^warn *lockdown' /tmp/doctor
grep 'carriers .*the initrd: files' /tmp/doctor
refused 'locked down.*the initrd cannot carry the content: .* no /.kho/carry' kho load "$K" --initrd "$I" --append "$C"
refused 'the kernel is locked down' kho load --carrier memory "$K" --initrd "$I" --initrd /tmp/hook.img --append "$C"
kho plan "$K" --initrd "$I" --initrd /tmp/hook.img --append "$C"
# An image without a signature changes nothing.
kho load "$K" --initrd "$I" --initrd /tmp/hook.img --append "$C"
cp "$K" /tmp/changed
printf x | dd of=/tmp/changed bs=1 seek=2000000 conv=notrunc 2>/dev/null
refused 'signature' kho load /tmp/changed --initrd "$I" --initrd /tmp/hook.img --append "$C"
kho status --json | tr -d ' \n' | grep -q '"by":"kho"'
# The call that unloads an image where kexec_load is forbidden.
kho unload
[ "$(cat /sys/kernel/kexec_loaded)" = 0 ]
# Armed, the content is that of the capture.
kho keep --name later - <<END
of hop $KHO_HOP
END
kho load --arm "$K" --initrd "$I" --initrd /tmp/hook.img --append "$C"
[ "$(cat /sys/kernel/kexec_loaded)" = 1 ]
kho capture
kho status
kho-guest loaded
