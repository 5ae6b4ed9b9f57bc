# The kernel crashes while the next hop is loaded, content included.
ready
case $KHO_RELEASE in @OWN@.*) ;; *) echo "this is $KHO_RELEASE"; exit 1 ;; esac
arrived_hop 1
[ "$(cat /srv/kept/file)" = kept ]
says "ready to kdump" kdump-config show
image=$(kernel @OWN@)
kho load "$image" --initrd "$(initrd_of "$image")" --reuse-cmdline
says "crash kernel is armed" kho doctor
[ "$(cat /sys/kernel/kexec_loaded) $(cat /sys/kernel/kexec_crash_loaded)" = "1 1" ]
test -z "$(find /var/crash -name 'dump.*')"
sync
kho-guest leave "sync; echo c > /proc/sysrq-trigger"
