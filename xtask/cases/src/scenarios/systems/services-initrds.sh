ready
# The package puts what a command line needs that was copied into every initrd. An administrator's own program is there for
# the initrd to start in place of its init.
initrds yes
cat > /etc/initramfs-tools/hooks/mine <<'END'
#!/bin/sh
[ "$1" != prereqs ] || exit 0
printf '#!/bin/sh\nexec /init mine_was_here\n' > "$DESTDIR/mine"
chmod 755 "$DESTDIR/mine"
END
chmod 755 /etc/initramfs-tools/hooks/mine
dpkg -i "$KHO_FILES"/kho_0.1.0_amd64.deb
for initrd in /boot/initrd.img-*; do
	lsinitramfs "$initrd" | grep -x .kho/arrive
done
