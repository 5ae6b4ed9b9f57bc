ready
dpkg -i "$KHO_FILES"/kho_0.1.0_amd64.deb
systemctl is-active --quiet kho-capture.service
# A mount that no unit waits for, mounted late and unmounted early: its content is kept and restored nevertheless.
cat > /etc/systemd/system/late.service <<'END'
[Unit]
DefaultDependencies=no
Conflicts=shutdown.target
Before=shutdown.target
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/sleep 10
END
mkdir /srv/late
echo "tmpfs /srv/late tmpfs nofail,size=1M,x-systemd.requires=late.service,x-systemd.after=late.service 0 0" >> /etc/fstab
systemctl daemon-reload
systemctl start srv-late.mount
echo late > /srv/late/file
# A service that still stops long after that mount is gone.
cat > /etc/systemd/system/slow.service <<'END'
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/true
ExecStop=/bin/sleep 5
END
systemctl start slow.service
postgres_to_ram
printf '%s\n' 'd /var/lib/redis skip-special replace' "d $data skip-special replace" 'd /srv/late replace' > /etc/kho/keep.d/services.conf
i=0
while [ $i -lt 500 ]; do echo "SET key:$i value-$i-$(printf %0100d $i)"; i=$((i + 1)); done | redis-cli > /dev/null
[ "$(redis-cli dbsize)" = 500 ]
sql "CREATE TABLE rows AS SELECT n, md5(n::text) AS hash FROM generate_series(1, 20000) n"
sql "SELECT count(*), md5(string_agg(hash, '' ORDER BY n)) FROM rows" | kho-guest same rows
kho keep --from-config
kho doctor
# Debian's own behaviour: GRUB leaves no boot loader entries, so systemctl finds nothing to load.
refused 1 "autodetection failed" systemctl kexec
# With an entry systemctl loads it. The loader is kho, which replaces kexec(8): so it hands over.
in_place_of_kexec
boot_loader_entry @OTHER@
