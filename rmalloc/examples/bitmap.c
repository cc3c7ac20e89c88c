/* The program of docs/seed.rst: a bitmap that may move between two uses.
 *
 *     cc bitmap.c $(pkg-config --cflags --libs rmalloc) && ./a.out >bitmap.pgm
 */
#include <rmalloc.h>
#include <stdio.h>

#define WIDTH 100
#define HEIGHT 100

/* Writes the bitmap as a picture; 0 if that worked. */
static int draw_bitmap(memory_t *bitmap)
{
    unsigned char *ptr;
    size_t written;

    if (rmlock(bitmap, (void **)&ptr))
        return 1;
    printf("P5 %d %d 255\n", WIDTH, HEIGHT);
    written = fwrite(ptr, 1, WIDTH*HEIGHT, stdout);
    rmunlock(bitmap);
    return written != WIDTH*HEIGHT;
}

int main(void)
{
    int x, y, failed;
    status_t status;

    /* allocate memory for the bitmap */
    memory_t *bitmap;
    status = rmalloc(&bitmap, WIDTH*HEIGHT);
    if (status) {
        fprintf(stderr, "bitmap: %s\n", rmerror(status));
        return 1;
    }

    /* get reference to actual memory */
    unsigned char *ptr;
    rmlock(bitmap, (void **)&ptr);

    /* draw pattern */
    for (y=0; y<HEIGHT; y++)
        for (x=0; x<WIDTH; x++)
            ptr[x + y*WIDTH] = x^y;

    /* release pointer and call auxillary code to do something with memory */
    rmunlock(bitmap);
    failed = draw_bitmap(bitmap);

    /* done with the bitmap, release allocated memory */
    rmfree(bitmap);
    return failed;
}
