ready
case $KHO_RELEASE in @OTHER@.*) ;; *) echo "this is $KHO_RELEASE"; exit 1 ;; esac
arrived_hop 1
journal_says 0 "restored keep.d:srv-files"
[ "$(cat /srv/ram/late/file)" = late ]
[ "$(cat /run/hand/file)" = hand ]
[ "$(stat -c %a /srv/files/file)" = 666 ]
clean_journal 0
# An entry that was not restored, and newer content at its path: a soft reboot must not replace it, whatever the rule says.
echo newer > /srv/later/file
sed -i 's/later manual/later replace/' /etc/kho/keep.d/srv.conf
echo "systemctl soft-reboot" > /run/guest-leave
