ready
case $KHO_RELEASE in @OTHER@.*) ;; *) echo "this is $KHO_RELEASE"; exit 1 ;; esac
arrived_hop 1
says "hop 1 from @OWN@" kho status
journal_says 0 "hop 1 from @OWN@"
journal_says 0 "restored keep.d:var-lib-redis"
journal_says 0 "restored keep.d:var-lib-postgresql"
journal_says -1 "captured 3 entries for @OTHER@"
findmnt -n /srv/late
[ "$(cat /srv/late/file)" = late ]
# The armed kernel was the boot loader entry.
grep -qw by_entry /proc/cmdline
test -s /run/kho/status.json
[ "$(redis-cli dbsize)" = 500 ]
[ "$(redis-cli get key:499)" = "value-499-$(printf %0100d 499)" ]
sql "SELECT count(*), md5(string_agg(hash, '' ORDER BY n)) FROM rows" | kho-guest same rows
clean_journal 0 -1
# And back, with more data in both, and in place this time: on khofs, by the modules that kho-dkms built for these
# kernels.
redis-cli set key:500 more > /dev/null
sql "INSERT INTO rows VALUES (20001, md5('20001'))"
rm /etc/kho/keep.d/services.conf
sed -i '/^tmpfs .srv.late /d' /etc/fstab
says "keep.d takes off" kho keep --from-config
tar -C / -xf "$KHO_FILES"/modules.tar
for kernel in /lib/modules/*; do depmod "${kernel##*/}"; done
modprobe --show-depends khofs
systemctl stop redis-server postgresql
data=/var/lib/postgresql/$(ls /usr/lib/postgresql)
to_khofs redis /var/lib/redis size=64m
to_khofs postgres "$data" size=300m
# An administrator freezes and thaws drivers.
kho activate
says "ACTIVE, drivers are frozen" kho status
fails touch /var/lib/redis/frozen
kho abort
touch /var/lib/redis/thawed
systemctl start redis-server postgresql
[ "$(redis-cli dbsize)" = 501 ]
# No hop into a kernel that could not give the memory back, because it has no module, or only a file with a similar
# name.
updates=$(ls -d /lib/modules/@OWN@.*/updates)
mv "$updates" /root/updates
refused 56 "has no kho.ko" arm @OWN@
mkdir "$updates"
touch "$updates/kho.koala"
refused 56 "has no kho.ko" arm @OWN@
rm -r "$updates"
mv /root/updates "$updates"
arm @OWN@
