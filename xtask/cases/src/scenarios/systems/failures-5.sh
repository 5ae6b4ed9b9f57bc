# The same boot, in the emergency shell: file systems are mounted, nothing is loaded, and kho has reported that.
case $KHO_RELEASE in @OWN@.*) ;; *) echo "this is $KHO_RELEASE"; exit 1 ;; esac
[ "$(cat /sys/kernel/kexec_loaded)" = 0 ]
touch /srv/gone/writable
findmnt -n /var/lib/redis
says "^active" systemctl is-active emergency.target
fails systemctl is-active --quiet redis-server.service
journal_says 0 "NOTHING IS HANDED OVER: .*/srv/must does not exist"
journal_says 0 "the shutdown is stopped: emergency shell on the console"
arrived_hop 1
# The administrator can repair the entries and hand over from here.
mv /srv/gone /srv/must
@DISK@image=$(kernel @OTHER@)
kho load "$image" --initrd "$(initrd_of "$image")" --reuse-cmdline
[ "$(cat /sys/kernel/kexec_loaded)" = 1 ]
kho-guest leave "kho exec"
