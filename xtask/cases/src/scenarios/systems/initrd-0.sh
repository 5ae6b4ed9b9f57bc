# The initrd carries content twice, by a capture at shutdown and by kho load.
ready
initrds yes
dpkg -i "$KHO_FILES"/kho_0.1.0_amd64.deb
for initrd in /boot/initrd.img-*; do
	lsinitramfs "$initrd" > /tmp/initrd
	grep -x .kho/carry /tmp/initrd
	grep -x scripts/init-top/kho /tmp/initrd
done
echo "tmpfs /srv/ram tmpfs size=300M 0 0" >> /etc/fstab
mkdir -p /srv/ram
systemctl daemon-reload
systemctl start srv-ram.mount
head -c 100M /dev/urandom > /srv/ram/file
sha256sum /srv/ram/file > /root/hash
echo "d /srv/ram replace" > /etc/kho/keep.d/srv.conf
echo sesame | kho keep --name token -
says "\[none\] integrity" cat /sys/kernel/security/lockdown
arm @OTHER@ --carrier initrd
says "is armed" kho status
