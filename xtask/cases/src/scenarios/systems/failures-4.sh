ready
case $KHO_RELEASE in @OWN@.*) ;; *) echo "this is $KHO_RELEASE"; exit 1 ;; esac
arrived_hop 1
journal_says -1 "kho: keep.d:srv-extra is not handed over (best-effort): .*does not exist"
journal_says -1 "another kho .* is still at work: it is killed"
journal_says -1 "once more without the best-effort entries keep.d:srv-large: "
journal_says -1 "captured 1 entry for @OWN@"
rm -r /etc/systemd/system/kho-capture.service.d /etc/kho/keep.d/large.conf
journal_says 0 "restored keep.d:srv-must"
[ "$(cat /srv/must/file)" = changed ]
clean_journal 0
# The last choice: do not go down.
cat > /etc/systemd/system/guest-emergency.service <<END
[Unit]
Description=The test of this guest, in the emergency shell
DefaultDependencies=no
[Service]
ExecStart=/media/bin/kho-guest system
END
mkdir /etc/systemd/system/emergency.target.wants
ln -s ../guest-emergency.service /etc/systemd/system/emergency.target.wants/
systemctl daemon-reload
arm @OTHER@ --on-failure stop
mv /srv/must /srv/gone
