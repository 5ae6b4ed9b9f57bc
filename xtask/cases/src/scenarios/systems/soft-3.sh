# The restore refuses loudly, and the old content is still there for the administrator.
rm /run/guest-leave
[ "$(systemctl is-system-running --wait)" = degraded ]
systemctl is-failed --quiet kho-restore.service
[ "$(systemctl show -p SoftRebootsCount --value)" = 1 ]
[ "$(cat /srv/later/file)" = newer ]
journalctl -b --no-pager -o cat -u kho-restore.service | grep "cannot restore keep.d:srv-later.*in the way"
kho restore --force keep.d:srv-later
[ "$(cat /srv/later/file)" = old ]
