case $KHO_RELEASE in @OTHER@.*) ;; *) echo "this is $KHO_RELEASE"; exit 1 ;; esac
grep -qw copied /proc/cmdline
grep -q 'rdinit=/.kho/arrive' /proc/cmdline
tr '\0' '\n' < /proc/1/cmdline | grep -x mine_was_here
says "nothing: this was an ordinary boot" kho status
