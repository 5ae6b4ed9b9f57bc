ready
case $KHO_RELEASE in @OWN@.*) ;; *) echo "this is $KHO_RELEASE"; exit 1 ;; esac
says "nothing: this was an ordinary boot" kho status
# Nobody at all is asked by kexec(8): what is loaded while a kernel is armed is no kernel, unless a plain start was chosen.
arm @OTHER@ --on-failure stop
kho-guest leave "sync; kexec -e"
