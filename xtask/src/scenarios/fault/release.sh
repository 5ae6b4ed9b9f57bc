# Memory that is given back.
case $KHO_HOP in
0)
	kho-guest bytes 3000001 --seed 2 | kho keep --name blob -
	kho-guest bytes 3000001 --seed 3 | kho keep --name other -
	kho-guest bytes 3000001 --seed 3 | kho-guest hash --same other
	;;
*)
	address blob | kho-guest report blob
	kho-guest mark before
	kho release blob
	kho-guest mark after
	refused '' kho get blob
	kho get other | kho-guest hash --same other
	;;
esac
