case $KHO_RELEASE in @OWN@.*) ;; *) echo "this is $KHO_RELEASE"; exit 1 ;; esac
says "nothing: this was an ordinary boot" kho status
if grep -q '^LOAD_KEXEC=true' /etc/default/kexec 2>/dev/null && test -e /etc/init.d/kexec-load; then
	journalctl -b -1 --no-pager -o cat -u kexec-load.service | grep -i "loading new kernel"
fi
complaints -1 | grep -i capture && exit 1
[ "$(cat /sys/kernel/kexec_crash_size)" -gt 0 ]
