ready
# The firmware started the machine's own kernel.
fails grep by_entry /proc/cmdline
says "nothing: this was an ordinary boot" kho status
journal_says -1 "NOTHING IS HANDED OVER: a kernel is loaded, but not by kho, and 1 entry is kept"
journal_says -1 "nothing is loaded, so the machine reboots through its firmware"
journal_says -1 "kho-capture.service: .*status=52"
clean_journal 0
# The generator makes systemd refuse kexec.target from the boot on.
systemctl cat kexec.target | grep '^RefuseManualStart=yes'
rm -r /etc/systemd/system/kexec.target.d
echo KHO_ON_FAILURE=plain >> /etc/default/kho
systemctl daemon-reload
boot_loader_entry 7
