# A soft reboot: user space starts anew under the same kernel. The list and the armed kernel must outlast it.
ready
dpkg -i "$KHO_FILES"/kho_0.1.0_amd64.deb
echo "tmpfs /srv/ram tmpfs size=1M 0 0" >> /etc/fstab
mkdir -p /srv/ram /srv/files /srv/later /run/hand
systemctl daemon-reload
systemctl start srv-ram.mount
echo ram > /srv/ram/file
echo files > /srv/files/file
chmod 666 /srv/files/file
mkdir /srv/ram/late
echo old > /srv/later/file
printf '%s\n' 'd /srv/files replace' 'd /srv/ram/late replace' 'd /srv/later manual' > /etc/kho/keep.d/srv.conf
echo hand > /run/hand/file
kho keep /run/hand
arm @OTHER@
# The unit has no way to the network, and sees the mounts of the system.
for unit in kho-capture kho-restore; do
	[ "$(systemctl show -p RestrictAddressFamilies --value $unit.service)" = AF_UNIX ]
	[ "$(systemctl show -p NoNewPrivileges --value $unit.service)" = yes ]
done
echo "systemctl soft-reboot" > /run/guest-leave
