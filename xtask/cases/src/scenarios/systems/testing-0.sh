# From systemd 261 on, systemctl kexec loads a boot loader entry itself and runs no kexec program: kept content would
# end with this kernel. systemd refuses that while the services still run. If an administrator allows it, the choice for
# a failed handover takes effect.
ready
[ "$(systemctl --version | sed -n 's/^systemd \([0-9]*\).*/\1/p')" -ge 261 ]
dpkg -i "$KHO_FILES"/kho_0.1.0_amd64.deb
in_place_of_kexec
start_is() { [ "$(systemctl show -P RefuseManualStart kexec.target)" = "$1" ]; }
start_is no
mkdir /srv/must
echo must > /srv/must/file
echo 'd /srv/must replace' > /etc/kho/keep.d/srv.conf
kho status > /tmp/said 2>&1
fails grep 'systemctl kexec' /tmp/said
boot_loader_entry 7
for verb in status doctor; do
	says '1 entry is kept, and no kernel is loaded: run kho load --arm KERNEL first; systemctl kexec would load the kernel of /run/boot-loader-entries/' kho $verb
done

kho keep --from-config
start_is yes
says 'systemctl kexec refuses until then' kho status
refused 4 'Operation refused' systemctl kexec
says 'refused by kho while something is kept: kho load --arm KERNEL first' systemctl status kexec.target
# systemd has loaded the entry by now.
[ "$(cat /sys/kernel/kexec_loaded)" = 1 ]
kho unload --force
ready
systemctl is-active kho-capture.service

arm 7
start_is no
kho unload
start_is yes
echo KHO_ON_FAILURE=plain >> /etc/default/kho
systemctl daemon-reload
start_is no
sed -i '$d' /etc/default/kho
kho keep --from-config
start_is yes

mkdir /etc/systemd/system/kexec.target.d
printf '[Unit]\nRefuseManualStart=no\n' > /etc/systemd/system/kexec.target.d/90-local.conf
systemctl daemon-reload
start_is no
