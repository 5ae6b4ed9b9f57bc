# A command line that was copied, with an initrd that kho did not load: kexec-tools does both. An rdinit= of the
# administrator's is what the initrd starts then.
grep -q 'rdinit=/.kho/arrive' /proc/cmdline
image=$(kernel @OTHER@)
kexec.distrib -s -l "$image" --initrd="$(initrd_of "$image")" --append="rdinit=/mine $(cat /proc/cmdline) copied"
kho-guest leave "sync; kexec.distrib -e"
