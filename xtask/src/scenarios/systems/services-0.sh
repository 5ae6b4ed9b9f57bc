ready
dpkg -i "$KHO_FILES"/kho_0.1.0_amd64.deb
systemctl is-active --quiet kho-capture.service
postgres_to_ram
printf '%s\n' 'd /var/lib/redis skip-special replace' "d $data skip-special replace" > /etc/kho/keep.d/services.conf
i=0
while [ $i -lt 500 ]; do echo "SET key:$i value-$i-$(printf %0100d $i)"; i=$((i + 1)); done | redis-cli > /dev/null
[ "$(redis-cli dbsize)" = 500 ]
sql "CREATE TABLE rows AS SELECT n, md5(n::text) AS hash FROM generate_series(1, 20000) n"
sql "SELECT count(*), md5(string_agg(hash, '' ORDER BY n)) FROM rows" | kho-guest same rows
kho keep --from-config
kho doctor
# What Debian does by itself: GRUB leaves no boot loader entries, so there is nothing to load.
refused 1 "autodetection failed" systemctl kexec
# With an entry it loads that by itself. What loads is kho, in the place of kexec(8): so it hands over.
in_place_of_kexec
boot_loader_entry @OTHER@
