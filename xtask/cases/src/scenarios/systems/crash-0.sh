# Debian's service arms a crash kernel, and a hop passes.
ready
dpkg -i "$KHO_FILES"/kho_0.1.0_amd64.deb
mkdir /srv/kept
echo 'd /srv/kept replace' > /etc/kho/keep.d/kept.conf
echo kept > /srv/kept/file
kdump_tools
says "ready to kdump" kdump-config show
[ "$(cat /sys/kernel/kexec_crash_loaded)" = 1 ]
arm @OWN@
[ "$(cat /sys/kernel/kexec_loaded) $(cat /sys/kernel/kexec_crash_loaded)" = "1 1" ]
