ready
case $KHO_RELEASE in @OWN@.*) ;; *) echo "this is $KHO_RELEASE"; exit 1 ;; esac
says "nothing: this was an ordinary boot" kho status
# kexec(8) runs no hook: the image that is loaded while a kernel is armed is not a kernel, unless a plain start was
# chosen.
arm @OTHER@ --on-failure stop
kho-guest leave "sync; kexec -e"
