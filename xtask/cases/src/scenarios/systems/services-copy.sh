# A copied command line, with an initrd that kho did not load: kexec-tools does both. The initrd then starts the
# administrator's own rdinit=.
grep -q 'rdinit=/.kho/arrive' /proc/cmdline
image=$(kernel @OTHER@)
kexec.distrib -s -l "$image" --initrd="$(initrd_of "$image")" --append="rdinit=/mine $(cat /proc/cmdline) copied"
kho-guest leave "sync; kexec.distrib -e"
