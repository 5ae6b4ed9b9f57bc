ready
case $KHO_RELEASE in @OWN@.*) ;; *) echo "this is $KHO_RELEASE"; exit 1 ;; esac
says "nothing: this was an ordinary boot" kho status
# The unit does not run: kho warned when the kernel was armed, and reports it when the system is down.
systemctl stop kho-capture.service
says "warning: kho-capture.service is not active" arm @OTHER@
