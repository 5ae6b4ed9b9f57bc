echo 'the wrong profile' >/tmp/wrong
echo "$KHO_NEXT_CMDLINE" >/tmp/right
kho-guest unify /tmp/next.efi ".linux=$KHO_NEXT_KERNEL" ".initrd=$KHO_NEXT_INITRD" .cmdline=/tmp/wrong \
	.profile=/tmp/wrong .profile=/tmp/wrong .cmdline=/tmp/right
refused 'no profile 2: it has 2' kho load /tmp/next.efi --profile 2
refused 'no unified kernel image' kho load "$KHO_NEXT_KERNEL" --profile 0
head -c 1000000 /tmp/next.efi >/tmp/cut.efi
refused 'cut short or damaged (section .linux' kho load /tmp/cut.efi
kho plan /tmp/next.efi --json >/tmp/plan
grep '"command_line": ".*the wrong profile"' /tmp/plan
kho load /tmp/next.efi --profile 1 --enter kernel 2>/tmp/said
grep 'initrd and command line are its own' /tmp/said
rm /tmp/*.efi
kho-guest loaded
