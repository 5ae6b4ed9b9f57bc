ready
case $KHO_RELEASE in @OTHER@.*) ;; *) echo "this is $KHO_RELEASE"; exit 1 ;; esac
says "nothing: this was an ordinary boot" kho status
clean_journal 0
# A kernel that another program loads, as systemd 262 does with a boot loader entry: kept content would end with this
# kernel.
sed -i 's/^KHO_ON_FAILURE=.*/KHO_ON_FAILURE=cold/' /etc/default/kho
image=$(kernel @OTHER@)
kexec -s -l "$image" --initrd="$(initrd_of "$image")" --reuse-cmdline
