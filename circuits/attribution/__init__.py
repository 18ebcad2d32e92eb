"""Attribution: rows of direct effects, most influential first, at a cost estimated beforehand."""
