# From systemd 262 on, systemctl kexec loads a boot loader entry itself and asks no kexec program: what is kept would end with
# this kernel. It is said before, and what was chosen for a handover that fails is done.
ready
[ "$(systemctl --version | sed -n 's/^systemd \([0-9]*\).*/\1/p')" -ge 262 ]
dpkg -i "$KHO_FILES"/kho_0.1.0_amd64.deb
in_place_of_kexec
mkdir /srv/must
echo must > /srv/must/file
echo 'd /srv/must replace' > /etc/kho/keep.d/srv.conf
kho status > /tmp/said 2>&1
fails grep 'systemctl kexec would load' /tmp/said
boot_loader_entry 7
for verb in status doctor; do
	says '1 entry is kept, and no kernel is loaded: systemctl kexec would load one by /run/boot-loader-entries/' kho $verb
done
