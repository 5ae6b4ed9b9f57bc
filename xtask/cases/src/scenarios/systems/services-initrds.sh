ready
# The package puts the program that a copied command line needs into every initrd. The initrd can also start an
# administrator's own program in place of its init.
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
