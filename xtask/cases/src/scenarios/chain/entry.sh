fails grep -q 'the wrong profile' /proc/cmdline
refused 'there is none in /boot' kho load
mkdir -p /boot/loader/entries
cp "$KHO_NEXT_KERNEL" /boot/vmlinuz
cp "$KHO_NEXT_INITRD" /boot/initrd
printf 'title Next\nlinux /vmlinuz\ninitrd /initrd\noptions %s\n' "$KHO_NEXT_CMDLINE" >/boot/loader/entries/next.conf
echo 'linux /gone' >/boot/loader/entries/other.conf
echo 'default next*' >/boot/loader/loader.conf
refused 'other.conf names /gone, which is not there' kho load --entry other
refused 'no boot loader entry third' kho load --entry third
kho load --enter kernel 2>/tmp/said
grep "boot loader's entry next.conf (Next): /boot/vmlinuz" /tmp/said
kho-guest loaded
